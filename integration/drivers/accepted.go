package drivers

// A Difference is one that is known and accepted: this section of this driver does not print the same through the gateway.
type Difference struct {
	Driver, Section string
	// Reason is for the reader of docs/compatibility.md.
	Reason string
}

// Accepted is the list of accepted differences. A section that is on it and is equal makes the test fail, so that the list stays short.
func Accepted() []Difference {
	return nil
}
