"""Print an order to start with: `python -m order_lines.sample ORDER_ID LINES [SKU=PIECES...]`."""

from __future__ import annotations

import sys

from order_lines.sagas import Line, Order


def sample(order_id: str, lines: int, *others: str) -> Order:
    """One piece of each of so many articles, and of others what is said."""
    more = [Line(sku=sku, pieces=int(pieces)) for sku, _, pieces in (other.partition("=") for other in others)]
    return Order(order_id=order_id, lines=[Line(sku=f"sku-{number}") for number in range(lines)] + more)


if __name__ == "__main__":
    print(sample(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]).model_dump_json())
