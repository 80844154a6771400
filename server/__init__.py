"""axpress's HTTP server and command line."""
