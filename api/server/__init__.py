"""The web server of the application: granian, its limits and the metrics of its processes. It knows no endpoint."""
