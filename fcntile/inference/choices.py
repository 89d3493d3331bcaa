"""The values that options of a prediction choose from.

No import here: the command line reads them before it imports anything heavy.
"""

STITCHES = ("cosine", "exact", "crop")
PRODUCTS = ("probabilities", "confidence", "entropy", "logits")
DTYPES = ("uint8", "float16", "float32")
DRIVERS = ("COG", "GTiff")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")  # "auto" is "fp32"
