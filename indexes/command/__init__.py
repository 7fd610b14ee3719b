"""How a command is declared and how it talks: options, log lines and answers, pages, progress."""
