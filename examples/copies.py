"""Every worker has a dataset of its own: what one changes, neither the others nor the trainer see."""

from forebay import DataLoader


class Counting:
    def __init__(self):
        self.made = 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.made += 1  # in this worker's copy
        return self.made


if __name__ == "__main__":
    for persistent in (False, True):
        dataset = Counting()
        with DataLoader(dataset, num_workers=2, persistent_workers=persistent) as loader:
            for _ in range(2):
                print(f"persistent_workers={persistent}:", [batch.item() for batch in loader])
        print("the trainer's copy:", dataset.made)
