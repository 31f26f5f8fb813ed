"""The server's side of every page: its frame, headline figures, plotly.js and styles."""
