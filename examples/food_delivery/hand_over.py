"""What people say about a meal: `python -m food_delivery.say accepted|handed-over MEAL_ID`."""

from __future__ import annotations

import asyncio
import sys

from food_delivery.services import accept, hand_over

if __name__ == "__main__":
    said, meal_id = sys.argv[1:]
    asyncio.run({"accepted": accept, "handed-over": hand_over}[said](meal_id))
