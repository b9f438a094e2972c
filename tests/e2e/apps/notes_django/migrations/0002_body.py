from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("notes_django", "0001_initial")]
    operations = [migrations.RenameField("Note", "text", "body")]
