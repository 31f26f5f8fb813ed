"""The diffusion lens on the page *Sample*, and what one exit costs a sample."""
