"""A dataset that grows between epochs: `len()` is asked when an epoch begins, and workers that start then see all."""

from forebay import DataLoader


class Growing:
    def __init__(self):
        self.samples = []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


if __name__ == "__main__":
    dataset = Growing()
    loader = DataLoader(dataset, batch_size=3, num_workers=2)
    for epoch in range(3):
        dataset.samples += [10 * epoch, 10 * epoch + 1]
        print([batch.tolist() for batch in loader])
