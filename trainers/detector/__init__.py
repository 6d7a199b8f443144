"""The lesion detector: Faster R-CNN as the DeepLesion paper has it, and a modern one; and what scores detections."""
