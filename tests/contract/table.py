"""Writes docs/pytorch-contract.md from the tests: `make contract`."""

import laws

if __name__ == "__main__":
    laws.PAGE.write_text(laws.render())
    print(f"{laws.PAGE} has {sum(len(section.laws) for section in laws.sections())} laws")
