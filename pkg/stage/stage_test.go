package stage

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestAsBatchError(t *testing.T) {
	var none *BatchError
	batch := none.Fail(2, errors.New("bad")).Fail(0, errors.New("worse")).Fail(2, errors.New("again"))
	tests := map[string]struct {
		err  error
		want bool
	}{
		"nil":                  {nil, false},
		"no input failed":      {none.ErrorOrNil(), false},
		"itself":               {batch.ErrorOrNil(), true},
		"wrapped":              {fmt.Errorf("insert: %w", batch), true},
		"joined with nil":      {errors.Join(nil, batch), true},
		"another":              {errors.New("store is away"), false},
		"joined with another":  {errors.Join(batch, errors.New("store is away")), false},
		"wrapped with another": {fmt.Errorf("%w: %w", batch, errors.New("store is away")), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := AsBatchError(tt.err)
			if ok != tt.want {
				t.Fatalf("found: %v, want %v", ok, tt.want)
			}
			if ok && (!slices.Equal(got.Indexes(), []int{0, 2}) || got.Cause(2).Error() != "bad") {
				t.Errorf("got %v, want inputs 0 and 2 with their first causes", got)
			}
		})
	}
}
