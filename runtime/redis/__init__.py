"""How Redis is reached: connections, scripts and keys. The rooms above decide what is stored there."""
