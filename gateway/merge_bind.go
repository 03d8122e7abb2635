package gateway

import (
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"
)

// What a combined statement takes over from the client's Bind.

// bindParameters are the client's parameters, with a format for each.
func (x *execution) bindParameters() *pgproto3.Bind {
	bind := &pgproto3.Bind{}
	if x.portal == nil {
		return bind
	}
	bind.Parameters = slices.Clone(x.portal.bind.Parameters)
	bind.ParameterFormatCodes = spread(x.portal.bind.ParameterFormatCodes, len(bind.Parameters))
	return bind
}

// bindLimit adds how many rows are wanted of a node, if its statement asks.
func (x *execution) bindLimit(bind *pgproto3.Bind, skip, left int64) {
	if x.plan.split.LimitParam == 0 {
		return
	}
	bind.ParameterFormatCodes = append(bind.ParameterFormatCodes, 1)
	var wanted []byte
	if sum := skip + left; left >= 0 && sum >= 0 { // beyond bigint: all
		wanted = binary.BigEndian.AppendUint64(nil, uint64(sum))
	}
	bind.Parameters = append(bind.Parameters, wanted)
}

// resultFormats has a format for each of the client's columns.
func (x *execution) resultFormats() []int16 {
	if x.portal == nil {
		return make([]int16, x.plan.visible)
	}
	return spread(x.portal.bind.ResultFormatCodes, x.plan.visible)
}

// spread gives each of n values its format: none means text, one is for all.
func spread(formats []int16, n int) []int16 {
	all := make([]int16, n)
	for i := range all {
		switch {
		case len(formats) == 1:
			all[i] = formats[0]
		case i < len(formats):
			all[i] = formats[i]
		}
	}
	return all
}
