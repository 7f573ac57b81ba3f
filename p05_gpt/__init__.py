"""Project 5: a GPT in twenty lines."""
