from django.db import connection
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from .models import Note


@csrf_exempt
def notes(request):
    if request.method == "GET":
        bodies = Note.objects.using(request.GET.get("using", "default")).order_by("id").values_list("body", flat=True)
        return JsonResponse(list(bodies), safe=False)
    note = Note.objects.create(body=request.body.decode())
    with connection.cursor() as cursor:
        # What is answered is in the bucket.
        cursor.execute("SELECT litestream_sync()")
        cursor.fetchall()
    return JsonResponse(note.id, safe=False)


urlpatterns = [path("notes", notes)]
