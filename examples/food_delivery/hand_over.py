"""What the courier says at the door: `python -m food_delivery.hand_over MEAL_ID`."""

from __future__ import annotations

import asyncio
import sys

from food_delivery.services import hand_over

if __name__ == "__main__":
    asyncio.run(hand_over(sys.argv[1]))
