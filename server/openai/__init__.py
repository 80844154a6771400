"""OpenAI's dialect, under its own paths and under Azure's."""
