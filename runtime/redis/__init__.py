"""How Redis is reached: connections, pipelining, scripts and keys. The rooms above decide what is stored there."""
