"""`axpress plan`: what fits and how fast it should be, on paper."""
