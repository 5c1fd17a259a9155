"""Trains a small image classifier: python classify.py [--data FOLDER]. Without a folder it makes its pictures up."""

import argparse
import time

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms


def get_args():
    parser = argparse.ArgumentParser(description="Image classification")
    parser.add_argument("--data", metavar="FOLDER", help="pictures in FOLDER/train/<class>/ and FOLDER/val/<class>/")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", default=224, type=int, help="width and height of what the model sees")
    parser.add_argument("--samples", default=1000, type=int, help="how many pictures to make up")
    parser.add_argument("--epochs", default=2, type=int)
    parser.add_argument("--batch-size", default=32, type=int)
    parser.add_argument("--workers", default=4, type=int)
    parser.add_argument("--lr", default=0.01, type=float)
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def load_data(args):
    normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    for_training = transforms.Compose(
        [
            transforms.RandomResizedCrop(args.size),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=0.2),
            transforms.ToTensor(),
            normalize,
        ]
    )
    for_evaluation = transforms.Compose(
        [transforms.Resize(args.size), transforms.CenterCrop(args.size), transforms.ToTensor(), normalize]
    )
    if args.data:
        train = datasets.ImageFolder(f"{args.data}/train", for_training)
        val = datasets.ImageFolder(f"{args.data}/val", for_evaluation)
        return train, val, len(train.classes)
    shape = (3, args.size, args.size)
    train = datasets.FakeData(args.samples, shape, 10, for_training)
    val = datasets.FakeData(args.samples // 4, shape, 10, for_evaluation, random_offset=args.samples)
    return train, val, 10


def train_one_epoch(model, criterion, optimizer, loader, device, epoch):
    model.train()
    start = time.time()
    for step, batch in enumerate(loader):
        images, targets = (part.to(device, non_blocking=True) for part in batch)
        loss = criterion(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"epoch {epoch} step {step}/{len(loader)} loss {loss.item():.17g}")
    seconds = time.time() - start
    print(f"epoch {epoch}: {len(loader.dataset) / seconds:.1f} pictures per second")


@torch.no_grad()
def evaluate(model, criterion, loader, device):
    model.eval()
    loss, correct = 0.0, 0
    for batch in loader:
        images, targets = (part.to(device, non_blocking=True) for part in batch)
        outputs = model(images)
        loss += criterion(outputs, targets).item() * len(images)
        correct += (outputs.argmax(1) == targets).sum().item()
    count = len(loader.dataset)
    print(f"validation: loss {loss / count:.17g} accuracy {correct / count:.4f}")


def main():
    args = get_args()
    torch.manual_seed(args.seed)
    train, val, num_classes = load_data(args)
    pin_memory = args.device.startswith("cuda")
    train_loader = DataLoader(
        train, args.batch_size, shuffle=True, num_workers=args.workers, pin_memory=pin_memory, drop_last=True
    )
    val_loader = DataLoader(val, args.batch_size, num_workers=args.workers, pin_memory=pin_memory)
    model = models.get_model(args.model, num_classes=num_classes).to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    for epoch in range(args.epochs):
        train_one_epoch(model, criterion, optimizer, train_loader, args.device, epoch)
        evaluate(model, criterion, val_loader, args.device)


if __name__ == "__main__":
    main()
