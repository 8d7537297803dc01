"""Encoders of event sequences, made of pytorch-lifestream's modules where those work (extra ``sequences``)."""
