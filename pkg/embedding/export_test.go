package embedding

// Bare is the model of a minilm provider without what this package adds.
type Bare struct{ m *miniLM }

// BareModel is the model below p.
func BareModel(p Provider) Bare { return Bare{p.(*miniLM)} }

// Tokens is the input of the model for a text.
func (b Bare) Tokens(text string) []int32 {
	ids, _ := b.m.tokens.Encode(text, 256)
	return ids
}

// Run is one run of the model over rows texts of equal length.
func (b Bare) Run(ids []int32, rows int) error {
	return b.m.session.Run(ids, rows, make([]float32, rows*miniLMDimensions))
}
