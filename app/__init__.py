"""The explorer: a Streamlit app over runs and traces."""
