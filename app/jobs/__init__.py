"""Work in the background: the queue and its jobs. Free of Streamlit."""
