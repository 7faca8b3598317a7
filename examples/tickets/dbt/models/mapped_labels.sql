with

label_values as (

    select area, kind, received_at from {{ ref('label_values') }}

),

teams as (

    select area, kind, team as label from {{ ref('team_by_resolution') }}

)

select label_values.area, label_values.kind, label_values.received_at, teams.label
from label_values
inner join teams
    on lower(trim(label_values.area)) = teams.area
    and lower(trim(label_values.kind)) = teams.kind
