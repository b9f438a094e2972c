"""The same in Django: the database and its replica are two aliases."""

import os
from pathlib import Path

SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["notes_django"]
ROOT_URLCONF = "notes_django.views"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REPLICA = os.environ["NOTES_REPLICA"]
DATABASES = {
    "default": {"ENGINE": "sqlite_litestream.django", "NAME": Path.cwd() / "notes.db",
                "OPTIONS": {"replica": REPLICA, "timeout": 30, "transaction_mode": "IMMEDIATE"}},
    "reader": {"ENGINE": "sqlite_litestream.django", "NAME": "reader.db", "OPTIONS": {"replica": REPLICA, "role": "replica"},
               "TEST": {"MIRROR": "default"}},
}
