from django.test import TransactionTestCase

from .models import Note


class Notes(TransactionTestCase):
    databases = {"default", "reader"}

    def test_what_is_written_is_read_by_the_other_alias(self):
        Note.objects.create(body="of a test")
        self.assertEqual(Note.objects.using("reader").get().body, "of a test")
        self.assertEqual(self.client.get("/notes").json(), ["of a test"])
