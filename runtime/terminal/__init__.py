"""What an operator sees and does at a terminal: the commands of `callboard`."""
