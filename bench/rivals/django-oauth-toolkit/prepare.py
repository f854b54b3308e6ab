"""Makes the database, with a person who is logged in and a client; prints the cookie of the person's session."""

import django
from django.core.management import call_command

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402 - models exist only after `setup`
from django.test import Client  # noqa: E402
from oauth2_provider.models import get_application_model  # noqa: E402

call_command("migrate", verbosity=0)
person = get_user_model().objects.create_user("person")
Application = get_application_model()
Application.objects.create(
    client_id="tool",
    client_type=Application.CLIENT_PUBLIC,
    authorization_grant_type=Application.GRANT_DEVICE_CODE,
    name="tool",
)
browser = Client()
browser.force_login(person)
print(browser.cookies["sessionid"].value)
