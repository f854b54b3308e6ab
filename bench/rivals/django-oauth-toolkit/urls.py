"""The endpoints of django-oauth-toolkit, where its tutorial puts them."""

from django.urls import include, path

urlpatterns = [path("o/", include("oauth2_provider.urls"))]
