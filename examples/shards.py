"""A stream that is divided among the workers: each reads its own shards."""

from forebay import DataLoader, IterableDataset, get_worker_info


class Shards(IterableDataset):
    def __init__(self, shards):
        self.shards = shards

    def __iter__(self):
        info = get_worker_info()
        mine = self.shards if info is None else self.shards[info.id :: info.num_workers]
        for shard in mine:
            yield from shard


if __name__ == "__main__":
    dataset = Shards([range(3), range(100, 102), range(10, 12), range(110, 111)])
    for drop_last in (False, True):
        loader = DataLoader(dataset, batch_size=2, num_workers=2, drop_last=drop_last)
        print([batch.tolist() for batch in loader])
