"""PyG: batches of graphs, dense ones, and neighbours of nodes, sampled in workers and looked up in the trainer."""

from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader, DenseDataLoader, DynamicBatchSampler, NodeLoader, RandomNodeLoader
from torch_geometric.nn import GCNConv, global_mean_pool
from torch_geometric.sampler import BaseSampler, NodeSamplerInput, SamplerOutput
from torch_geometric.utils import coalesce, k_hop_subgraph

from observe import finish, observe


def graph(nodes: int, generator: torch.Generator) -> Data:
    edges = coalesce(torch.randint(0, nodes, (2, 3 * nodes), generator=generator))
    return Data(
        x=torch.randn(nodes, 5, generator=generator),
        edge_index=edges,
        y=torch.randint(0, 2, (1,), generator=generator),
    )


class Neighbours(BaseSampler):
    """The usual NeighborLoader samples with compiled code (pyg-lib or torch-sparse); this does with torch alone."""

    def __init__(self, data: Data) -> None:
        self.edges = data.edge_index

    def sample_from_nodes(self, index: NodeSamplerInput, **_: Any) -> SamplerOutput:
        nodes, edges, _, mask = k_hop_subgraph(index.node, 1, self.edges, relabel_nodes=True)
        kept = torch.rand(edges.shape[1]) < 0.8
        return SamplerOutput(
            node=nodes,
            row=edges[0, kept],
            col=edges[1, kept],
            edge=mask.nonzero().flatten()[kept],
            metadata=(index.input_id, None),
        )

    def sample_from_edges(self, *_: Any, **__: Any) -> SamplerOutput:
        raise NotImplementedError("only nodes are sampled here")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = GCNConv(5, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, data: Data) -> torch.Tensor:
        hidden = self.convolution(data.x, data.edge_index).relu()
        return self.last(global_mean_pool(hidden, data.batch))


def main() -> None:
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(4)
    graphs = [graph(4 + number % 5, generator) for number in range(24)]
    large = graph(40, generator)
    same_size = [Data(x=one.x[:4], adj=torch.eye(4), y=one.y) for one in graphs]
    loaders = [
        DataLoader(graphs, batch_size=4, shuffle=True, num_workers=2, follow_batch=["x"], persistent_workers=True),
        DataLoader(graphs, batch_sampler=DynamicBatchSampler(graphs, max_num=30, shuffle=True), num_workers=2),
        NodeLoader(large, Neighbours(large), batch_size=8, shuffle=True, num_workers=2),
        NodeLoader(large, Neighbours(large), batch_size=8, shuffle=True, num_workers=2, persistent_workers=True),
        NodeLoader(large, Neighbours(large), batch_size=8, num_workers=2, filter_per_worker=True),
        RandomNodeLoader(large, num_parts=4, shuffle=True, num_workers=2),
    ]
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss = torch.tensor(0.0)
    for loader in loaders:
        for _ in range(2):
            for batch in loader:
                observe(batch.to_dict())
                loss = nn.functional.cross_entropy(model(batch), batch.y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    for batch in DenseDataLoader(same_size, batch_size=4, shuffle=True, num_workers=2):
        observe(batch.to_dict())
    finish(loss)


if __name__ == "__main__":
    main()
