"""The generated parts of the documentation: schemas, tables, figures and pictures. `make docs` writes them."""
