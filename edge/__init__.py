"""The agent daemon of one private site: keeps its books, learns from them, answers from a release."""
