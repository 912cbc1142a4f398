"""An order across four services: created, reserved, paid, shipped, or undone."""
