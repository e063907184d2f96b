"""Compute columns of segments: measures of the signal, learned scores, speakers, findings in the text."""
