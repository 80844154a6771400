"""What a person does in a terminal: a conversation with a server, and looking at what runs on it."""
