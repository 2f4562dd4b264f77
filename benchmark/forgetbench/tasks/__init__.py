"""Task definitions: image set, network, training recipe, scenario, seeds. Never imports torch."""
