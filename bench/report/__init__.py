"""What the figures are told with: the page, the picture and the targets. It measures nothing."""
