"""The OAuth dialect: RFC 8628, 6749, 7009, 7662 and 8414 on the same sessions. The table of errors is `errors`."""
