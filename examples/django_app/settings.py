"""Django's settings, as few as there can be. With PostgreSQL (psycopg 3) only `DATABASES` differs."""

from __future__ import annotations

SECRET_KEY = "not a secret: this shop has no users"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS = ["django_app"]
ROOT_URLCONF = "django_app.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "shop.db",
        # The relay writes too: wait for it, and begin as the writer that one is going to be.
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
    }
}
