package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// Whoever changes a line that a mutant changes learns it here, and not from "make mutants" next month.
func TestEveryMutantApplies(t *testing.T) {
	t.Chdir("../..")
	for _, m := range mutants {
		_, err := m.overlay(t.TempDir())
		assert.NoError(t, err, m.name)
	}
}
