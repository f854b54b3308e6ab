"""The web server around the application: granian, its limits, the metrics of its processes. It knows no endpoint."""
