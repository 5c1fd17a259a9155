"""Torch's own `DataLoader`, as it was before anything of ours took its place."""

import torch.utils.data

__all__ = ["StockDataLoader", "get_stock_iterator"]

StockDataLoader = torch.utils.data.DataLoader

get_stock_iterator = StockDataLoader._get_iterator
