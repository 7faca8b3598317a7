-- Each resolution's team, computed independently of the model, to check training sets against.
select distinct versions.area, versions.kind, received_at, team as label
from versions
inner join read_csv($seeds || '/team_by_resolution.csv') as seed
    on (lower(trim(versions.area)), lower(trim(versions.kind))) = (seed.area, seed.kind)
