"""The shop's own table."""

from __future__ import annotations

from django.db import models


class Order(models.Model):  # type: ignore[misc]  # Django has no types of its own
    number = models.CharField(max_length=32, unique=True)
    customer = models.EmailField()
    paid = models.BooleanField(default=False)
