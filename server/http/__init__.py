"""What is asked of a request before anybody knows what it wants: keys, origins, sizes, deadlines; and error bodies."""
