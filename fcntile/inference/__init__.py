"""From strips of pixels to rows of class ids: tiles, batches, logits, blending."""
