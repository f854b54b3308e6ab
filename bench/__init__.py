"""Measures the cost of requests, logins and live sessions against a floor and a rival. Nothing here is a test."""
