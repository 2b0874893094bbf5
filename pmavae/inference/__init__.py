"""How a trained network runs fast and in little memory."""
